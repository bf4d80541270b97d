"""Small configurations of the causal language models of ``transformers``: the defaults, with sizes that fit
a table of names."""

from __future__ import annotations

import re
from typing import Any

#: What a name that matches is set to, by the first pattern, where the default is no smaller.
SIZES: tuple[tuple[str, Any], ...] = (
    (r"\w*vocab(_size)?(_per_layer_input)?", 99),
    (r"pad_token_id", 0),
    (r"(decoder_start|bos|cls|mask|unk)_token_id", 1),
    (r"(eos|sep)_token_id", 2),
    (r"\w+_token_id", 3),
    (r"hidden_size|d_model|n_embd|dim|emb_dim|attention_hidden_size|word_embed_proj_dim|lru_width|cross_attention"
     r"_hidden_size|embedding_size|hidden_dim|input_embedding_size", 32),
    (r"hidden_size_per_layer_input|moe_latent_size|altup_latent_dim|laurel_rank", 8),
    (r"(num_)?(hidden_|decoder_|encoder_)?layers|n_layers?|num_layers", 2),
    (r"num_nextn_predict_layers|num_mem_blocks", 1),
    (r"num_attention_heads|n_heads?|(decoder_|encoder_)?attention_heads|num_heads|mamba_n_heads|mamba_num_heads|"
     r"linear_num_value_heads|num_swa_attention_heads|num_global_attention_heads|swa_num_attention_heads", 4),
    (r"num_key_value_heads|num_kv_heads|linear_num_key_heads|swa_num_key_value_heads|multi_query_group_num|"
     r"num_global_key_value_heads", 2),
    (r"head_dim|d_kv|attention_head_dim|v_head_dim|qk_nope_head_dim|qk_rope_head_dim|global_head_dim|swa_head_dim"
     r"|swa_v_head_dim|linear_key_head_dim|linear_value_head_dim|mamba_d_head|mamba_head_dim|kv_channels|d_head|"
     r"index_head_dim|qk_head_dim|rotary_dim", 8),
    (r"kv_lora_rank|q_lora_rank|o_lora_rank|time_step_rank|mamba_dt_rank", 16),
    (r"state_size|mamba_d_state|ssm_state_size", 8),
    (r"n_groups|mamba_n_groups", 1),
    (r"mamba_d_ssm", 32),
    (r"\w*intermediate_size\w*|(decoder_|encoder_)?ffn_dim|ffn_hidden_size|d_inner|mlp_hidden_size|d_ff|expert_ffn_hidden_size|"
     r"block_ff_dim|block_dim|dim_feedforward|n_inner|ffn_intermediate_size", 64),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_k|experts_per_token|moe_topk|num_experts_per_token|top_k_experts", 2),
    (r"n_group|topk_group", 1),
    (r"n_shared_experts|num_shared_experts", 1),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"max_position_embeddings|n_positions|max_seq_len|seq_len|n_ctx|max_sequence_length"
     r"|max_target_positions", 64),
    (r"(attention_|sliding_)?window(_size)?|sliding_window_size|attention_chunk_size|attention_window_size|"
     r"swa_window_size|local_window_size", 5),
    (r"num_kv_shared_layers", 0),
    (r"chunk_size|mamba_chunk_size", 4),
    (r"index_topk", 64),
    (r"pad_to_multiple_of|num_buckets", 1),
)


MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}

#: What some classes need besides.
CHANGES: dict[str, dict[str, Any]] = {
    "BambaForCausalLM": MAMBA,
    "DeepseekV2ForCausalLM": {"num_experts_per_tok": 2},
    "DogeForCausalLM": {"keep_window_size": 64},
    "Dots1ForCausalLM": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]]},
    "GraniteMoeHybridForCausalLM": MAMBA,
    "HunYuanDenseV1ForCausalLM": {"head_dim": 8},
    "HunYuanMoEV1ForCausalLM": {"head_dim": 8},
    "Lfm2MoeForCausalLM": {"layer_types": ["full_attention", "full_attention"]},
    "LongcatFlashForCausalLM": {"zero_expert_num": 1, "expert_ffn_hidden_size": 16},
    "Mamba2ForCausalLM": {"num_heads": 8},
    "MinistralForCausalLM": {"head_dim": 8},
    "NemotronForCausalLM": {"num_key_value_heads": 2},
    "ProphetNetForCausalLM": {"num_buckets": 32},
    "XmodForCausalLM": {"default_language": "en_XX"},
    "Zamba2ForCausalLM": {"layer_types": ["mamba", "hybrid"], "mamba_headdim": 8},
    "ZambaForCausalLM": {"layer_types": ["linear_attention", "hybrid"]},
}


def entries(name: str, config_class: Any) -> dict[str, Any]:
    """The arguments of the configuration of the class ``name``."""
    default = config_class()
    sizes, changes = shrunk_sizes(default), CHANGES.get(name, {})
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(sizes.get(key), dict)
        sizes[key] = {**sizes[key], **value} if inner else value
    if "kv_lora_rank" in vars(default):  # heads of compressed keys are not shared
        sizes["num_key_value_heads"] = 4
    if vars(default).get("is_decoder") is False:
        sizes["is_decoder"] = True
    return sizes


def shrunk_sizes(default: Any) -> dict[str, Any]:
    """Arguments of the configuration's constructor."""
    found: dict[str, Any] = {}
    for key, value in vars(default).items():
        if hasattr(value, "get_text_config"):
            found[key] = {"model_type": value.model_type, **shrunk_sizes(value)}
        elif not key.startswith("_") and key not in ("model_type", "transformers_version"):
            size = next((size for pattern, size in SIZES if re.fullmatch(pattern, key)), None)
            if size is not None and isinstance(value, int) and not isinstance(value, bool):
                found[key] = size if key.endswith("_token_id") or value < 0 else min(size, value)
    return found
