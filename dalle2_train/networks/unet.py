"""The U-Net of Dhariwal & Nichol 2021 with GLIDE's context attention: the body of the decoder and of the upsamplers.

Its state_dict keys are those of diffusers' `UNet2DConditionModel` with the simple cross-attention blocks, and, without
attention, those of `UNet2DModel` with the Resnet{Down,Up}sampleBlock2D blocks.
B batch, C channels, H W pixels, D width of the time vector, M context tokens, K context width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.networks.attention import PixelAttention
from dalle2_train.networks.embeddings import TimestepEmbedding
from dalle2_train.networks.init import zero_init
from dalle2_train.networks.resnet import EPS, Resample, ResnetBlock


@dataclass(frozen=True)
class UNetConfig:
    """What the decoder's and the upsamplers' configs resolve to; already validated there."""

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    num_resnets: int
    attention: tuple[bool, ...]
    """Per level, whether its residual blocks are followed by attention."""
    mid_attention: bool
    head_dim: int
    context_dim: int
    scale_shift: bool
    dropout: float
    time_dim: int
    """Width of the time vector."""
    num_groups: int
    """Of every GroupNorm."""

    def resnet(self, in_channels: int, out_channels: int, how: Resample = "none") -> ResnetBlock:
        """A residual block of this network."""
        return ResnetBlock(
            in_channels,
            out_channels,
            self.time_dim,
            self.num_groups,
            scale_shift=self.scale_shift,
            dropout=self.dropout,
            how=how,
        )

    def attentions(self, channels: int, count: int) -> nn.ModuleList:
        """`count` attention blocks of this network."""
        blocks = (
            PixelAttention(channels, self.head_dim, self.context_dim, self.num_groups, EPS)
            for _ in range(count)
        )
        return nn.ModuleList(blocks)


class DownBlock(nn.Module):
    """One level on the way down: residual blocks, then half the resolution unless it is the last level."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        widths = [config.channels[max(level - 1, 0)]] + [channels] * config.num_resnets
        self.resnets = nn.ModuleList(config.resnet(width, channels) for width in widths[:-1])
        self.attentions = config.attentions(channels, config.num_resnets if config.attention[level] else 0)
        is_last = level == len(config.channels) - 1
        self.downsamplers = nn.ModuleList([] if is_last else [config.resnet(channels, channels, "down")])

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)  # (B, C, H, W)
            if self.attentions:
                x = self.attentions[i](x, context, bias)
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x, time)  # (B, C, H/2, W/2)
            skips.append(x)
        return x, tuple(skips)


class MidBlock(nn.Module):
    """Residual block, attention if the network has it here, residual block, at the lowest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels[-1]
        self.resnets = nn.ModuleList(config.resnet(channels, channels) for _ in range(2))
        self.attentions = config.attentions(channels, int(config.mid_attention))

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        x = self.resnets[0](x, time)  # (B, C, H, W)
        for attention in self.attentions:
            x = attention(x, context, bias)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """One level on the way up: residual blocks over the skips, then double resolution unless it is the first level."""

    def __init__(self, config: UNetConfig, level: int, in_channels: int, skip_channels: list[int]) -> None:
        super().__init__()
        channels = config.channels[level]
        widths = [in_channels] + [channels] * (len(skip_channels) - 1)
        self.resnets = nn.ModuleList(
            config.resnet(width + skip, channels) for width, skip in zip(widths, skip_channels, strict=True)
        )
        self.attentions = config.attentions(channels, len(self.resnets) if config.attention[level] else 0)
        self.upsamplers = nn.ModuleList([] if level == 0 else [config.resnet(channels, channels, "up")])

    def forward(
        self, x: Tensor, skips: tuple[Tensor, ...], time: Tensor, context: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips[-1 - i]], dim=1), time)  # (B, C, H, W)
            if self.attentions:
                x = self.attentions[i](x, context, bias)
        for upsampler in self.upsamplers:
            x = upsampler(x, time)  # (B, C, 2H, 2W)
        return x


class UNet(nn.Module):
    """(B, in_channels, H, W) → (B, out_channels, H, W), given the time and, for its attention, context tokens."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels, num_levels = config.channels, len(config.channels)
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], kernel_size=3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], config.time_dim)
        self.down_blocks = nn.ModuleList(DownBlock(config, level) for level in range(num_levels))
        self.mid_block = MidBlock(config)

        skips = [channels[0]]
        for level, width in enumerate(channels):
            skips += [width] * (config.num_resnets + (level < num_levels - 1))
        self.skips_per_block = config.num_resnets + 1
        self.up_blocks = nn.ModuleList()
        in_channels = channels[-1]
        for level in reversed(range(num_levels)):
            taken = [skips.pop() for _ in range(self.skips_per_block)]
            self.up_blocks.append(UpBlock(config, level, in_channels, taken))
            in_channels = channels[level]

        self.conv_norm_out = nn.GroupNorm(config.num_groups, channels[0], eps=EPS)
        self.conv_out = zero_init(nn.Conv2d(channels[0], config.out_channels, kernel_size=3, padding=1))

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return [*self.down_blocks, self.mid_block, *self.up_blocks]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        time_shift: Tensor | None = None,
        context: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """`x` (B, C, H, W), `t` (B,), `time_shift` (B, D) added to the time vector, `context` (B, M, K) with the
        additive `bias` (B, 1, 1, M) of its tokens' visibility."""
        time = self.time_embedding(t)  # (B, D)
        time = F.silu(time if time_shift is None else time + time_shift)
        x = self.conv_in(x)  # (B, C, H, W)
        skips = (x,)
        for block in self.down_blocks:
            x, new_skips = block(x, time, context, bias)
            skips += new_skips
        x = self.mid_block(x, time, context, bias)
        for block in self.up_blocks:
            skips, taken = skips[: -self.skips_per_block], skips[-self.skips_per_block :]
            x = block(x, taken, time, context, bias)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, out_channels, H, W)
