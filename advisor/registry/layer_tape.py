"""What a method may do to the operations of a layer: the tape as methods see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from advisor.framework import Framework
    from advisor.tape import Tape, Value
    from profiles.facts import Model


class LayerTape(Protocol):
    """Appends operations to one layer's tape; `graph.modules` is what stands behind it."""

    tape: Tape
    model: Model
    base_width: int
    """Bytes of a weight of the linears, where they are not quantized."""
    autocasts: bool
    """Linears cast their inputs and weights to 16 bits."""
    trained: int
    """Bytes of a trained weight."""
    products: int
    """Bytes of what products of floating-point matrices give."""

    @property
    def framework(self) -> Framework:
        """How the framework carries the mathematics out."""

    @property
    def is_quantized(self) -> bool:
        """The frozen linears have few bits."""

    def value(
        self, name: str, inputs: tuple[Value, ...], size: float, width: int, **kw: Any
    ) -> Value:
        """An operation whose result has `size` elements of `width` bytes a token."""

    def cast(self, x: Value, width: int) -> Value:
        """`x` in another type, or itself."""

    def add(self, a: Value, b: Value) -> Value:
        """Sum of both."""

    def matmul(
        self, x: Value, name: str, weights: int, n_out: float, width: int, *, trains: bool
    ) -> Value:
        """Product with a matrix of `width` bytes an element, under the plan's autocast."""
