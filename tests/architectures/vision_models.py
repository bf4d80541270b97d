"""Vision models of the ``transformers`` library, small, on images that are not square where they allow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from architecture import Architecture
from model_inputs import Draw, features, images, together, tokens
from text_models import library_model

#: A vision transformer on 4 x 3 patches.
PATCHES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "image_size": (32, 24),
    "patch_size": 8,
}
SQUARE: dict[str, Any] = {**PATCHES, "image_size": 32}
TALL = images(32, 24)
BATCH = {"pixel_values": {0: ("batch", 1, 4)}}
BATCHES = ({"batch": 2}, {"batch": 1}, {"batch": 3})


def vision(
    name: str,
    kind: str,
    inputs: Draw,
    *,
    config: str = "",
    part: str = "",
    quick: bool = False,
    dynamic: bool = False,
    **options: Any,
) -> Architecture:
    stem = kind.removesuffix("Model").removesuffix("Backbone")
    return Architecture(
        name,
        lambda: library_model(kind, config or f"{stem}Config", options, part),
        inputs,
        dynamic=BATCH if dynamic else None,
        sizes=BATCHES if dynamic else ({},),
        quick=quick,
    )


TRANSFORMERS = (
    vision("vit", "ViTModel", TALL, quick=True, **PATCHES),
    vision("vit_batches", "ViTModel", TALL, dynamic=True, **PATCHES),
    vision("deit", "DeiTModel", TALL, **PATCHES),
    vision("beit", "BeitModel", TALL, use_relative_position_bias=True, **PATCHES),
    vision(
        "data2vec_vision", "Data2VecVisionModel", images(), use_shared_relative_position_bias=True, **SQUARE
    ),
    vision("dinov2", "Dinov2Model", images(32, 40), **SQUARE),
    vision("dinov2_with_registers", "Dinov2WithRegistersModel", images(), **SQUARE),
    vision("ijepa", "IJepaModel", images(), **SQUARE),
    vision("vit_msn", "ViTMSNModel", images(), **SQUARE),
    vision("vit_mae", "ViTMAEModel", together(images(), features(2, 16, name="noise")), **SQUARE),
    vision("yolos", "YolosModel", TALL, num_detection_tokens=5, **{**PATCHES, "image_size": [32, 24]}),
    vision("clip_vision", "CLIPVisionModel", images(), **SQUARE),
    vision("siglip_vision", "SiglipVisionModel", images(), **SQUARE),
    vision("owlvit_vision", "OwlViTVisionModel", images(), **SQUARE),
    vision(
        "swin",
        "SwinModel",
        images(32, 48),
        image_size=(32, 48),
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "swin_padded",
        "SwinModel",
        images(36, 28),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "swinv2",
        "Swinv2Model",
        images(32, 48),
        image_size=(32, 48),
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "donut_swin",
        "DonutSwinModel",
        images(),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "swin2sr",
        "Swin2SRForImageSuperResolution",
        images(16, 24),
        config="Swin2SRConfig",
        image_size=16,
        patch_size=1,
        embed_dim=16,
        depths=[2],
        num_heads=[2],
        window_size=8,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    vision(
        "hiera",
        "HieraModel",
        images(),
        image_size=[32, 32],
        embed_dim=16,
        num_heads=[1, 2],
        depths=[1, 1],
        patch_size=[7, 7],
        patch_stride=[4, 4],
        patch_padding=[3, 3],
        masked_unit_size=[4, 4],
        num_query_pool=1,
    ),
    replace(
        vision(
            "levit",
            "LevitModel",
            images(64, 64),
            image_size=64,
            hidden_sizes=[16, 32, 48],
            num_attention_heads=[2, 2, 2],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
        ),
        called_before=True,
    ),
    vision(
        "mobilevit",
        "MobileViTModel",
        images(64, 96),
        image_size=64,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64],
        num_attention_heads=4,
    ),
    vision(
        "mobilevitv2",
        "MobileViTV2Model",
        images(64, 64),
        image_size=64,
        width_multiplier=0.5,
        base_attn_unit_dims=[16, 24, 32],
    ),
    vision(
        "poolformer", "PoolFormerModel", images(64, 48), hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]
    ),
    vision(
        "cvt",
        "CvtModel",
        images(32, 48),
        embed_dim=[8, 16, 24],
        num_heads=[1, 2, 3],
        depth=[1, 2, 3],
        cls_token=[False, False, True],
    ),
    vision(
        "segformer",
        "SegformerModel",
        images(64, 96),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
    ),
    vision(
        "segformer_segmentation",
        "SegformerForSemanticSegmentation",
        images(64, 96),
        config="SegformerConfig",
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
    ),
    vision(
        "glpn",
        "GLPNForDepthEstimation",
        images(64, 96),
        config="GLPNConfig",
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
    ),
    vision(
        "pvt",
        "PvtModel",
        images(64, 64),
        image_size=64,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        mlp_ratios=[2, 2, 2, 2],
    ),
    vision(
        "pvt_v2",
        "PvtV2Model",
        images(64, 96),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        mlp_ratios=[2, 2, 2, 2],
    ),
    vision(
        "swiftformer", "SwiftFormerModel", images(64, 64), embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]
    ),
    vision(
        "focalnet",
        "FocalNetModel",
        images(32, 32),
        image_size=32,
        embed_dim=16,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        patch_size=4,
    ),
    vision(
        "dpt",
        "DPTForDepthEstimation",
        images(32, 32),
        config="DPTConfig",
        **{**SQUARE, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5],
    ),
    vision(
        "videomae",
        "VideoMAEModel",
        lambda generator, sizes: {
            "pixel_values": images(16, 16, batch=2 * 4)(generator, sizes)["pixel_values"].reshape(
                2, 4, 3, 16, 16
            )
        },
        **{**SQUARE, "image_size": 16},
        num_frames=4,
        tubelet_size=2,
    ),
    vision(
        "sam_vision",
        "SamVisionModel",
        images(64, 64),
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_dim=37,
        output_channels=16,
        window_size=2,
        global_attn_indexes=[1],
    ),
)

CONVOLUTIONS = (
    vision(
        "convnext",
        "ConvNextModel",
        images(64, 96),
        quick=True,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
    ),
    vision(
        "convnextv2", "ConvNextV2Model", images(64, 96), hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]
    ),
    vision(
        "resnet",
        "ResNetModel",
        images(64, 48),
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        layer_type="bottleneck",
    ),
    vision(
        "regnet",
        "RegNetModel",
        images(64, 48),
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        groups_width=4,
        layer_type="y",
    ),
    vision(
        "bit",
        "BitModel",
        images(64, 48),
        embedding_size=8,
        hidden_sizes=[32, 32, 64, 64],
        depths=[1, 1, 1, 1],
        num_groups=4,
    ),
    vision("mobilenet_v1", "MobileNetV1Model", images(64, 48), depth_multiplier=0.25, min_depth=4),
    vision("mobilenet_v2", "MobileNetV2Model", images(64, 48), quick=True, depth_multiplier=0.25),
    vision(
        "efficientnet",
        "EfficientNetModel",
        images(64, 48),
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=0.5,
        hidden_dim=320,
    ),
    vision("textnet", "TextNetModel", images(64, 64)),
    vision("hgnet_v2", "HGNetV2Backbone", images(64, 64), config="HGNetV2Config"),
    vision(
        "vitdet",
        "VitDetModel",
        images(64, 64),
        **{**SQUARE, "image_size": 64, "patch_size": 16},
        window_size=2,
        window_block_indices=[0],
        use_relative_position_embeddings=True,
        pretrain_image_size=64,
    ),
)

TWO_TOWERS = (
    vision(
        "clip",
        "CLIPModel",
        together(tokens(length=7, batch=3), images(batch=2)),
        text_config={
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 37,
            "max_position_embeddings": 40,
            "eos_token_id": 2,
        },
        vision_config={**SQUARE, "num_hidden_layers": 1},
        projection_dim=16,
    ),
    replace(
        vision(
            "vilt",
            "ViltModel",
            together(tokens(types=2), images(32, 32)),
            vocab_size=99,
            **{**SQUARE, "max_position_embeddings": 40},
        ),
        refused="data-dependent",
    ),
    vision(
        "perceiver",
        "PerceiverModel",
        features(2, 11, 12, name="inputs"),
        d_model=12,
        num_latents=6,
        d_latents=16,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
    ),
)

VISION = (*TRANSFORMERS, *CONVOLUTIONS, *TWO_TOWERS)
