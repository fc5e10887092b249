"""The shared product of linears with the same input, alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mocae.bank.linear import Stack
from mocae.errors import ModelMismatchError


def _linears(bias: bool) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(32, out, bias=bias and out != 8) for out in (16, 8, 24)]


@pytest.mark.parametrize("bias", [True, False])
def test_parts_are_the_products_and_the_tensors_come_back(bias: bool) -> None:
    linears, factors = _linears(bias), [torch.randn(r, 32) for r in (2, 3, 1)]
    before = [{k: v.clone() for k, v in linear.state_dict().items()} for linear in linears]
    parameters = [linear.weight for linear in linears]
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        outputs = [linear(x) for linear in linears]
        stack = Stack(linears, factors)
        for index, linear in enumerate(linears):
            base, low_rank = stack.take(x, index)
            torch.testing.assert_close(base, outputs[index])
            torch.testing.assert_close(low_rank, x @ factors[index].T)
            assert torch.equal(linear(x), outputs[index])
    shared = linears[0].weight.untyped_storage().data_ptr()
    assert all(linear.weight.untyped_storage().data_ptr() == shared for linear in linears)
    stack.release()
    assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 3
    assert all(linear.weight is parameter for linear, parameter in zip(linears, parameters, strict=True))
    for linear, old in zip(linears, before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in linear.state_dict().items())


def test_a_changed_input_is_never_answered_from_the_old_product() -> None:
    linears = _linears(bias=False)
    with torch.no_grad():
        stack = Stack(linears, [torch.randn(1, 32) for _ in linears])
        x = torch.randn(1, 2, 32)
        stack.take(x, 0)
        x.mul_(3.0)
        torch.testing.assert_close(stack.take(x, 1)[0], linears[1](x))
        other = torch.randn(1, 2, 32)
        torch.testing.assert_close(stack.take(other, 2)[0], linears[2](other))


def test_a_part_asked_for_twice_is_computed_twice() -> None:
    linears = _linears(bias=False)
    with torch.no_grad():
        stack = Stack(linears, [torch.randn(1, 32) for _ in linears])
        x = torch.randn(1, 2, 32)
        first, second = stack.take(x, 0)[0], stack.take(x, 0)[0]
        assert torch.equal(first, second)
        assert first.data_ptr() != second.data_ptr()


def test_a_model_that_was_moved_is_noticed() -> None:
    linears = _linears(bias=False)
    stack = Stack(linears, [torch.randn(1, 32) for _ in linears])
    linears[1].weight.data = linears[1].weight.data.clone()
    with pytest.raises(ModelMismatchError, match="detach the bank, change the model, attach again"):
        stack.take(torch.randn(1, 1, 32), 0)


def test_linears_that_cannot_be_stacked_are_told_apart() -> None:
    class Quantised(nn.Linear):
        pass

    wrapped = nn.Linear(32, 8)
    wrapped.forward = lambda input: input  # type: ignore[method-assign]
    assert Stack.accepts(nn.Linear(32, 8))
    assert not Stack.accepts(nn.Linear(33, 8))  # a slice would not start on a 64-byte boundary
    assert not Stack.accepts(Quantised(32, 8))
    assert not Stack.accepts(wrapped)
