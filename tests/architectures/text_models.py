"""Text models of the ``transformers`` library, small."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from architecture import Architecture
from model_inputs import Draw, tokens

if TYPE_CHECKING:
    from torch import nn

#: Hidden sizes under the names that most configurations have.
USUAL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 40,
}
DYNAMIC = {name: {0: ("batch", 1, 4), 1: ("length", 1, 16)} for name in ("input_ids", "attention_mask")}
SIZES = ({"batch": 2, "length": 7}, {"batch": 1, "length": 1}, {"batch": 3, "length": 13})


def library_model(kind: str, config: str, options: dict[str, Any], part: str = "") -> nn.Module:
    """A model class of ``transformers`` from its configuration; ``part`` is a submodule's dotted name."""
    import transformers

    transformers.logging.set_verbosity_error()
    model = getattr(transformers, kind)(getattr(transformers, config)(**options))
    return model.get_submodule(part) if part else model


def text(
    name: str,
    kind: str,
    inputs: Draw | None = None,
    *,
    part: str = "",
    quick: bool = False,
    dynamic: bool = False,
    config: str = "",
    usual: bool = True,
    **options: Any,
) -> Architecture:
    """``kind`` is the class's name without its ending: "BertModel"."""
    stem = kind.removesuffix("Model").removesuffix("ForCausalLM").removesuffix("Encoder")
    return Architecture(
        name,
        lambda: library_model(kind, config or f"{stem}Config", {**(USUAL if usual else {}), **options}, part),
        inputs or tokens(),
        dynamic=DYNAMIC if dynamic else None,
        sizes=SIZES if dynamic else ({},),
        quick=quick,
    )


ENCODERS = (
    text("bert", "BertModel", tokens(types=2), quick=True),
    text("bert_dynamic", "BertModel", dynamic=True),
    text("bert_eager_attention", "BertModel", tokens(types=2), attn_implementation="eager"),
    text("roberta", "RobertaModel"),
    text("xlm_roberta", "XLMRobertaModel"),
    text("camembert", "CamembertModel"),
    text("distilbert", "DistilBertModel", dim=32, hidden_dim=37, n_layers=2, n_heads=4),
    text("albert", "AlbertModel", tokens(types=2), embedding_size=16, num_hidden_groups=1),
    text("electra", "ElectraModel", embedding_size=16),
    text(
        "deberta",
        "DebertaModel",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        max_relative_positions=16,
    ),
    text(
        "deberta_v2",
        "DebertaV2Model",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        conv_kernel_size=3,
    ),
    text("mpnet", "MPNetModel"),
    text("xlnet", "XLNetModel", usual=False, vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=37),
    text(
        "funnel",
        "FunnelBaseModel",
        tokens(length=8),
        config="FunnelConfig",
        usual=False,
        vocab_size=99,
        block_sizes=[1, 2],
        d_model=32,
        n_head=4,
        d_head=8,
        d_inner=37,
    ),
    replace(
        text("longformer", "LongformerModel", tokens(length=16), attention_window=8), refused="data-dependent"
    ),
    text("big_bird", "BigBirdModel", attention_type="original_full"),
    text(
        "big_bird_sparse",
        "BigBirdModel",
        tokens(length=48, mask=""),
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=2,
        max_position_embeddings=64,
    ),
    text(
        "mobilebert",
        "MobileBertModel",
        embedding_size=16,
        intra_bottleneck_size=32,
        true_hidden_size=32,
        num_feedforward_networks=2,
    ),
    text(
        "squeezebert",
        "SqueezeBertModel",
        embedding_size=32,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=2,
        intermediate_groups=1,
        intermediate_size=64,
        output_groups=2,
    ),
    text("convbert", "ConvBertModel", embedding_size=32, head_ratio=2, conv_kernel_size=5),
    text("fnet", "FNetModel", tokens(mask=""), tpu_short_seq_length=7),
    text(
        "nystromformer",
        "NystromformerModel",
        tokens(length=16, mask=""),
        num_landmarks=16,
        segment_means_seq_len=16,
    ),
    text("rembert", "RemBertModel", input_embedding_size=16),
    text("layoutlm", "LayoutLMModel"),
    text("megatron_bert", "MegatronBertModel"),
    text("ernie", "ErnieModel"),
    text("modernbert", "ModernBertModel", tokens(length=13), local_attention=4, pad_token_id=0),
    text("esm", "EsmModel", pad_token_id=1, position_embedding_type="rotary"),
    text("roformer", "RoFormerModel"),
    text("data2vec_text", "Data2VecTextModel"),
    text("splinter", "SplinterModel"),
    text(
        "xlm",
        "XLMModel",
        usual=False,
        vocab_size=99,
        emb_dim=32,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=40,
    ),
    text("clip_text", "CLIPTextModel", eos_token_id=2),
    text("siglip_text", "SiglipTextModel"),
    text(
        "t5_encoder",
        "T5EncoderModel",
        config="T5Config",
        quick=True,
        usual=False,
        vocab_size=99,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
    ),
    text(
        "t5_encoder_dynamic",
        "T5EncoderModel",
        config="T5Config",
        dynamic=True,
        usual=False,
        vocab_size=99,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    ),
    *(
        text(
            name,
            f"{kind}Model",
            part=part,
            usual=False,
            vocab_size=99,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=37,
            decoder_ffn_dim=37,
            max_position_embeddings=40,
            pad_token_id=1,
        )
        for name, kind, part in (
            ("bart_encoder", "Bart", "encoder"),
            ("marian_encoder", "Marian", "encoder"),
            ("pegasus_encoder", "Pegasus", "encoder"),
            ("mbart_encoder", "MBart", "encoder"),
        )
    ),
)
