"""Models of the ``transformers`` library for sound and time series, small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from architecture import Architecture, Inputs, Sizes
from model_inputs import Draw, features, tokens, waves
from text_models import library_model

#: A wave encoder of three convolutions and two layers.
WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 4, 2],
    "conv_kernel": [10, 6, 3],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


def sound(
    name: str,
    kind: str,
    inputs: Draw,
    *,
    config: str = "",
    part: str = "",
    quick: bool = False,
    **options: Any,
) -> Architecture:
    stem = kind.removesuffix("Model").removesuffix("Encoder")
    return Architecture(
        name, lambda: library_model(kind, config or f"{stem}Config", options, part), inputs, quick=quick
    )


def vits_tokens(generator: torch.Generator, sizes: Sizes) -> Inputs:
    """Seven tokens of two sentences, and where they are not padding, as VITS wants it."""
    found = tokens(38)(generator, sizes)
    return {**found, "padding_mask": found["attention_mask"][..., None].float()}


def series(generator: torch.Generator, sizes: Sizes) -> Inputs:
    """Two series of 24 past values of three channels."""
    return {"past_values": torch.randn(2, 24, 3, generator=generator)}


SOUND = (
    sound("wav2vec2", "Wav2Vec2Model", waves(), quick=True, **WAVE),
    sound(
        "wav2vec2_masked",
        "Wav2Vec2Model",
        waves(mask=True),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        **WAVE,
    ),
    sound("hubert", "HubertModel", waves(), **WAVE),
    sound("wavlm", "WavLMModel", waves(), num_buckets=16, max_bucket_distance=32, **WAVE),
    sound("unispeech", "UniSpeechModel", waves(), **WAVE),
    sound("sew", "SEWModel", waves(), squeeze_factor=2, **WAVE),
    sound(
        "data2vec_audio",
        "Data2VecAudioModel",
        waves(),
        **{**WAVE, "num_conv_pos_embeddings": 2},
        conv_pos_kernel_size=5,
    ),
    sound(
        "wav2vec2_conformer",
        "Wav2Vec2ConformerModel",
        waves(),
        position_embeddings_type="relative",
        conv_depthwise_kernel_size=5,
        **WAVE,
    ),
    sound(
        "wav2vec2_bert",
        "Wav2Vec2BertModel",
        features(2, 20, 12, name="input_features"),
        feature_projection_input_dim=12,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        conv_depthwise_kernel_size=5,
    ),
    sound(
        "whisper_encoder",
        "WhisperModel",
        features(2, 16, 60, name="input_features"),
        part="encoder",
        quick=True,
        vocab_size=99,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        max_source_positions=30,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
    sound(
        "speech_to_text_encoder",
        "Speech2TextModel",
        features(2, 43, 12, name="input_features"),
        part="encoder",
        config="Speech2TextConfig",
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        input_feat_per_channel=12,
        conv_channels=16,
        max_source_positions=60,
    ),
    sound(
        "audio_spectrogram",
        "ASTModel",
        features(2, 40, 32, name="input_values"),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        patch_size=8,
        frequency_stride=6,
        time_stride=6,
        max_length=40,
        num_mel_bins=32,
    ),
    replace(
        sound(
            "encodec_encoder",
            "EncodecModel",
            features(2, 1, 640, name="hidden_states"),
            part="encoder",
            num_filters=8,
            hidden_size=16,
            upsampling_ratios=[4, 2],
            codebook_size=32,
            target_bandwidths=[1.5],
        ),
        refused="data-dependent",
    ),
    sound(
        "vits_text_encoder",
        "VitsModel",
        vits_tokens,
        part="text_encoder",
        hidden_size=32,
        ffn_dim=37,
        num_hidden_layers=2,
        num_attention_heads=2,
        flow_size=32,
        wavenet_dilation_rate=1,
    ),
    sound(
        "patchtst",
        "PatchTSTModel",
        series,
        num_input_channels=3,
        context_length=24,
        patch_length=6,
        patch_stride=3,
        d_model=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=24,
    ),
    sound(
        "patchtsmixer",
        "PatchTSMixerModel",
        series,
        num_input_channels=3,
        context_length=24,
        patch_length=6,
        patch_stride=6,
        d_model=16,
        num_layers=2,
    ),
    sound(
        "decision_transformer",
        "DecisionTransformerModel",
        lambda generator, sizes: {
            "states": torch.randn(2, 5, 7, generator=generator),
            "actions": torch.randn(2, 5, 3, generator=generator),
            "rewards": torch.randn(2, 5, 1, generator=generator),
            "returns_to_go": torch.randn(2, 5, 1, generator=generator),
            "timesteps": torch.arange(10).reshape(2, 5),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]),
        },
        state_dim=7,
        act_dim=3,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        max_ep_len=32,
    ),
)
