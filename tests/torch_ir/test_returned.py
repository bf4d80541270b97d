"""Objects that a module returns and PyTorch does not look into: their tensors are outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_ir import IRError, extract_ir
from torch_ir.eager import run
from torch_ir.returned import plain


class Kept:
    """Like a cache: tensors in lists and objects, and what is no tensor."""

    def __init__(self, x: Tensor) -> None:
        self.layers = [SimpleNamespace(keys=x * 2, values=None, length=3), SimpleNamespace(keys=x * 3)]
        self.total = {"sum": x.sum(), "count": 7}
        self.kind = "dynamic"
        self._private = x * 4
        self.itself = self


class Returning(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": x + 1, "kept": Kept(x), "none": SimpleNamespace(size=3)}


NAMES = ["y", "kept_layers_0_keys", "kept_layers_1_keys", "kept_total_sum"]


def test_tensors_of_objects_are_outputs_by_the_attributes_that_hold_them() -> None:
    model, x = Returning(), torch.randn(2, 3)
    ir = extract_ir(model, (x,))
    assert [output.name for output in ir.outputs] == NAMES
    found = run(ir, {"x": x}, {}).outputs
    for name, wanted in zip(NAMES, (x + 1, x * 2, x * 3, x.sum()), strict=True):
        assert torch.equal(found[name], wanted)
    assert "forward" not in vars(model)


def test_what_pytorch_knows_stays_as_it_is() -> None:
    x = torch.randn(2)
    result = (x, [1, "a", None], {"z": x})
    assert plain(torch, result) == result


def test_an_object_without_tensors_alone_is_no_output() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(size=x.shape[0])

    with pytest.raises(IRError, match="returns no tensor"):
        extract_ir(Nothing(), (torch.randn(2),))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=37, num_key_value_heads=2))


def _bart() -> nn.Module:
    from transformers import BartConfig, BartModel

    return BartModel(BartConfig(vocab_size=99, d_model=32, encoder_layers=1, decoder_layers=1,
                                encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=37,
                                decoder_ffn_dim=37, max_position_embeddings=40))


def _lfm2() -> nn.Module:
    from transformers import Lfm2Config, Lfm2Model

    return Lfm2Model(Lfm2Config(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                intermediate_size=37, num_key_value_heads=2,
                                layer_types=["conv", "full_attention"]))


@pytest.mark.parametrize(("make", "names"), [
    (_llama, {"cache_layers_1_keys", "cache_layers_1_values"}),
    (_bart, {"cache_self_attention_cache_layers_0_keys", "cache_cross_attention_cache_layers_0_values"}),
    (_lfm2, {"cache_layers_0_conv_states_0", "cache_layers_1_keys"}),
])
def test_a_cache_of_transformers_is_outputs(make: Any, names: set[str]) -> None:
    model, ids = make().eval(), torch.randint(3, 99, (2, 7))
    ir = extract_ir(model, {"input_ids": ids})
    assert names <= {output.name for output in ir.outputs}
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(plain(torch, model(input_ids=ids)))
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    found = run(ir, {"input_ids": ids}, model.state_dict()).outputs
    assert len(found) == len(wanted) == len(ir.outputs)
    for output, value in zip(ir.outputs, wanted, strict=True):
        assert torch.allclose(found[output.name], value, rtol=1e-4, atol=1e-5), output.name
