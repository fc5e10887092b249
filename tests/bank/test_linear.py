"""The shared product of linears with the same input, alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from mocae.bank.gates import Gates, Layout
from mocae.bank.linear import BankLinear, Stack
from mocae.errors import ModelMismatchError

SIZES, RANKS = (16, 8, 8, 24), (2, 3, 3, 1)
ALPHA = torch.tensor([0.7, -0.4])


def _linears(bias: bool) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(32, out, bias=bias and out != 24) for out in SIZES]


def _members(
    linears: Sequence[nn.Linear], gates: Gates, *, dtype: torch.dtype = torch.float32, ranks: Sequence[int] = RANKS
) -> list[BankLinear]:
    """Two experts on every linear, of ranks (r, 2 r)."""
    torch.manual_seed(1)
    members = []
    for linear, r in zip(linears, ranks, strict=False):
        layout = Layout(experts=(0, 1), ranks=(r, 2 * r), scalings=(2.0, 0.5), device=torch.device("cpu"), dtype=dtype)
        factors = torch.randn(3 * r, 32, dtype=dtype), torch.randn(linear.out_features, 3 * r, dtype=dtype)
        members.append(BankLinear("", linear, layout=layout, factors=factors, gates=gates))
    return members


def _expected(members: Sequence[BankLinear], x: Tensor, alpha: Tensor) -> list[Tensor]:
    """The formula of the bank, by experts, from copies of the factors."""
    found = []
    for member in members:
        r = member.layout.ranks[0]
        parts = [(slice(0, r), 0, 2.0), (slice(r, 3 * r), 1, 0.5)]
        low = [alpha[..., k, None] * scaling * (x @ member.A[s].T) @ member.B[:, s].T for s, k, scaling in parts]
        found.append(member.original(x) + sum(low))
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "alpha", [ALPHA, torch.randn(2, 1, 2), torch.randn(2, 5, 2), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])]
)
def test_parts_are_the_mixtures_and_the_tensors_come_back(bias: bool, alpha: Tensor) -> None:
    linears, gates = _linears(bias), Gates(2)
    before = [{k: v.clone() for k, v in linear.state_dict().items()} for linear in linears]
    parameters = [linear.weight for linear in linears]
    members, x = _members(linears, gates), torch.randn(2, 5, 32)
    gates.set(alpha.squeeze(1) if alpha.shape[:2] == (2, 1) else alpha)
    with torch.no_grad():
        plain = [linear(x) for linear in linears]
        expected = _expected(members, x, alpha)
        stack = Stack(members, gates)
        for index, linear in enumerate(linears):
            torch.testing.assert_close(stack.take(x, index), expected[index], atol=1e-4, rtol=1e-4)
            assert torch.equal(linear(x), plain[index])
    shared = linears[0].weight.untyped_storage().data_ptr()
    assert all(linear.weight.untyped_storage().data_ptr() == shared for linear in linears)
    stack.release()
    assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == len(SIZES)
    assert all(linear.weight is parameter for linear, parameter in zip(linears, parameters, strict=True))
    for linear, old in zip(linears, before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in linear.state_dict().items())


@pytest.mark.parametrize("tokens", [1, 40])
def test_bf16_products_land_in_their_slices(tokens: int) -> None:
    linears, gates = [linear.to(torch.bfloat16) for linear in _linears(bias=False)], Gates(2)
    members = _members(linears, gates, dtype=torch.bfloat16, ranks=(8, 16, 16, 8))
    x, alpha = torch.randn(3, tokens, 32).to(torch.bfloat16), torch.randn(3, 2)
    gates.set(alpha)
    with torch.inference_mode():
        expected = _expected(members, x, alpha[:, None].to(torch.bfloat16))
        stack = Stack(members, gates)
        for index, wanted in enumerate(expected):
            found = stack.take(x, index).float()
            assert (found - wanted.float()).norm() < 0.02 * wanted.float().norm()  # bf16 has 8 bits


def test_an_expert_without_weight_is_not_multiplied() -> None:
    gates = Gates(2)
    members = _members(_linears(bias=False), gates)
    stack, x = Stack(members, gates), torch.randn(1, 2, 32)
    for member in members:
        member.B[:, : member.layout.ranks[0]] = float("nan")  # the first expert; 0 * nan is nan, left out it is not
    with torch.no_grad():
        gates.set(torch.tensor([0.0, 1.0]))
        assert all(torch.isfinite(stack.take(x, index)).all() for index in range(len(members)))
        gates.set(torch.tensor([[0.1, 1.0]]))
        assert stack.take(x, 0).isnan().all()


def test_a_changed_input_is_never_answered_from_the_old_product() -> None:
    gates = Gates(2)
    members = _members(_linears(bias=False), gates)
    stack = Stack(members, gates)
    gates.set(ALPHA)
    with torch.no_grad():
        x = torch.randn(1, 2, 32)
        stack.take(x, 0)
        x.mul_(3.0)
        torch.testing.assert_close(stack.take(x, 1), _expected(members, x, ALPHA)[1], atol=1e-4, rtol=1e-4)
        other = torch.randn(1, 2, 32)
        torch.testing.assert_close(stack.take(other, 2), _expected(members, other, ALPHA)[2], atol=1e-4, rtol=1e-4)


def test_a_part_asked_for_twice_is_computed_twice() -> None:
    gates = Gates(2)
    stack = Stack(_members(_linears(bias=False), gates), gates)
    gates.set(ALPHA)
    with torch.no_grad():
        x = torch.randn(1, 2, 32)
        first, second = stack.take(x, 0), stack.take(x, 0)
        assert torch.equal(first, second)
        assert first.data_ptr() != second.data_ptr()


def test_a_model_that_was_moved_is_noticed() -> None:
    linears, gates = _linears(bias=False), Gates(2)
    stack = Stack(_members(linears, gates), gates)
    gates.set(ALPHA)
    linears[1].weight.data = linears[1].weight.data.clone()
    with torch.no_grad(), pytest.raises(ModelMismatchError, match="detach the bank, change the model, attach again"):
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
