"""Layers in which a stream of words and a stream of regions look at each other.

Shape legend: B samples, N words, M regions, D features of a word, E of a region.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from plait.models.systems.bert import Attention, FeedForward


class CoAttention(nn.Module):
    """ViLBERT's co-attentional transformer layer (Lu et al. 2019, figure 2b).

    Each stream has its own queries, keys, values, output matrix and feed-forward. Queries of one
    meet keys and values of the other, both as they were before the layer.

    Args:
        text_width: features of a word.
        image_width: features of a region.
        inner: features of queries, keys and values.
        heads: of attention.
        text_hidden: of the words' feed-forward.
        image_hidden: of the regions' feed-forward.
        dropout: everywhere.
    """

    def __init__(
        self,
        text_width: int,
        image_width: int,
        *,
        inner: int,
        heads: int,
        text_hidden: int,
        image_hidden: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.text = Attention(text_width, heads, inner=inner, dropout=dropout)
        self.image = Attention(image_width, heads, inner=inner, dropout=dropout)
        self.text_feed_forward = FeedForward(text_width, text_hidden, dropout=dropout)
        self.image_feed_forward = FeedForward(image_width, image_hidden, dropout=dropout)

    def forward(
        self,
        words: Float[Tensor, "B N D"],
        text_keep: Bool[Tensor, "B N"],
        found: Float[Tensor, "B M E"],
        image_keep: Bool[Tensor, "B M"],
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B M E"]]:
        """Both streams after the layer."""
        text_query, text_key, text_value = self.text.project(words)
        image_query, image_key, image_value = self.image.project(found)
        from_image = self.text.mix(text_query, image_key, image_value, image_keep)
        from_text = self.image.mix(image_query, text_key, text_value, text_keep)
        words = self.text_feed_forward(self.text.close(from_image, words))
        found = self.image_feed_forward(self.image.close(from_text, found))
        return words, found


class SharedCrossLayer(nn.Module):
    """LXMERT's cross-modality layer (Tan and Bansal 2019, section 2.2).

    One cross-attention, with the same weights in both directions and on the inputs before either is
    updated; then self-attention and feed-forward for each stream.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.cross = Attention(width, heads, dropout=dropout)
        self.text = Attention(width, heads, dropout=dropout)
        self.image = Attention(width, heads, dropout=dropout)
        self.text_feed_forward = FeedForward(width, hidden, dropout=dropout)
        self.image_feed_forward = FeedForward(width, hidden, dropout=dropout)

    def forward(
        self,
        words: Float[Tensor, "B N D"],
        text_keep: Bool[Tensor, "B N"],
        found: Float[Tensor, "B M D"],
        image_keep: Bool[Tensor, "B M"],
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B M D"]]:
        """Both streams after the layer."""
        text_query, text_key, text_value = self.cross.project(words)
        image_query, image_key, image_value = self.cross.project(found)
        from_image = self.cross.mix(text_query, image_key, image_value, image_keep)
        from_text = self.cross.mix(image_query, text_key, text_value, text_keep)
        words = self.text(self.cross.close(from_image, words), text_keep)
        found = self.image(self.cross.close(from_text, found), image_keep)
        return self.text_feed_forward(words), self.image_feed_forward(found)
