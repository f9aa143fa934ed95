"""The PyTorch operations that a file may ask for: a fixed list, so that nothing in a file is ever code.

On it is what computes numbers from numbers and checks its arguments. Not on it is what reads files, takes memory by
address, or trusts indices that it is given (the backward of pooling, CTC).
"""

from __future__ import annotations

from typing import Any

_NAMES = """
abs abs_ acos acosh _adaptive_avg_pool2d _adaptive_avg_pool2d_backward add add_ addbmm addcdiv addcdiv_ addcmul
addcmul_ addmm addmv addr alias all amax amin aminmax angle any arange argmax argmin as_strided asin asinh atan atan2
atanh atleast_1d avg_pool2d avg_pool2d_backward baddbmm bartlett_window bernoulli bernoulli_ binary_cross_entropy
binary_cross_entropy_backward binary_cross_entropy_with_logits bitwise_and bitwise_not bitwise_or bitwise_xor
blackman_window bmm cat _cdist_backward _cdist_forward ceil celu clamp clamp_ clamp_max clamp_max_ clamp_min
clamp_min_ clone complex conj _conj_physical constant_pad_nd contiguous convolution convolution_backward copy copy_
copysign cos cos_ cosh cross cummax cummin cumprod cumsum deg2rad detach detach_ detach_ diag_embed diagonal
diagonal_backward diff digamma dist div div_ dot dropout elu elu_ elu_backward embedding embedding_dense_backward
empty empty_like empty_strided eq erf erf_ erfc erfinv erfinv_ _euclidean_dist exp exp_ exp2 expand expm1 expm1_
exponential_ eye _fft_c2c _fft_c2r _fft_r2c fill fill_ flip float_power floor floor_ floor_divide fmax fmin fmod frac
full full_like _fused_rms_norm _fused_rms_norm_backward gather ge gelu gelu_backward glu glu_backward gt
hamming_window hann_window hardsigmoid hardsigmoid_backward hardswish hardswish_backward hardtanh hardtanh_backward
huber_loss huber_loss_backward hypot i0 imag index index_add index_add_ index_copy index_fill index_put index_put_
index_select isfinite isinf isnan isneginf isposinf kl_div kron le leaky_relu leaky_relu_ leaky_relu_backward lerp
lerp_ lgamma lift_fresh linalg_cholesky_ex linalg_cross _linalg_det _linalg_eigh linalg_eigh linalg_inv_ex
linalg_lu_factor_ex linalg_lu_solve linalg_qr _linalg_slogdet _linalg_solve_ex linalg_solve_triangular
linalg_vector_norm linspace log log_ log10 log10_ log1p log1p_ log2 log2_ log_normal_ log_sigmoid_backward
log_sigmoid_forward _log_softmax _log_softmax_backward_data logaddexp logaddexp2 logcumsumexp logical_and logical_not
logical_or logical_xor logit logit_backward logsumexp lt masked_fill masked_fill_ masked_scatter masked_select max
max_pool2d_with_indices maximum mean median min minimum mish mish_backward mm mse_loss mse_loss_backward mul mul_
multi_margin_loss multinomial mv mvlgamma nan_to_num nan_to_num_ nanmean nansum narrow native_batch_norm
native_batch_norm_backward _native_batch_norm_legit native_dropout native_dropout_backward native_group_norm
native_group_norm_backward native_layer_norm native_layer_norm_backward ne neg neg_ new_empty new_empty_strided
new_full new_ones new_zeros nll_loss2d_backward nll_loss2d_forward nll_loss_backward nll_loss_forward nonzero norm
normal normal_ ones ones_like permute pixel_shuffle poisson poisson_nll_loss polar polygamma pow pow_ _prelu_kernel
_prelu_kernel_backward prod rad2deg rand rand_like randint randint_like randn randn_like random_ randperm real
reciprocal reciprocal_ reflection_pad1d reflection_pad2d relu relu_ remainder renorm repeat repeat_interleave reshape
roll round round_ rrelu_with_noise rsqrt rsqrt_ rsub _safe_softmax scalar_tensor _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward scatter scatter_
scatter_add scatter_add_ scatter_reduce select select_backward select_scatter selu sgn sigmoid sigmoid_
sigmoid_backward sign silu silu_ silu_backward sin sin_ sinc sinh slice slice_backward slice_scatter smooth_l1_loss
smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward _softmax _softmax_backward_data softplus
softplus_backward sort special_entr special_erfcx special_i0e special_i1 special_log_ndtr special_ndtri
special_xlog1py split split_with_sizes sqrt sqrt_ square square_ squeeze squeeze_ stack std std_mean sub sub_ sum t t_
tan tanh tanh_ tanh_backward _thnn_fused_gru_cell _thnn_fused_lstm_cell threshold threshold_backward _to_copy topk
trace transpose transpose_ tril triu trunc unbind unfold unfold_backward uniform_ unsafe_chunk unsafe_split
_unsafe_view unsqueeze unsqueeze_ upsample_bilinear2d upsample_bilinear2d_backward upsample_nearest2d
upsample_nearest2d_backward var var_mean vdot view view_as_complex view_as_real where xlogy xlogy_ zero_ zeros
zeros_like
"""
NAMES = frozenset(_NAMES.split())
_PLAIN = frozenset(
    {
        *("Tensor", "number", "int", "float", "bool", "str", "Device"),
        *("List[Tensor]", "List[Optional[Tensor]]", "List[int]", "List[float]", "List[bool]"),
        *("Optional[Tensor]", "Optional[number]", "Optional[int]", "Optional[float]", "Optional[bool]"),
        *("Optional[str]", "Optional[Device]", "Optional[List[int]]", "Optional[List[float]]"),
        "Optional[Generator]",
    }
)
"""Types of arguments that a file can spell; a generator can only be left out."""


def overload(name: str) -> Any | None:
    """The operation called like "aten.div.Tensor"; None for one that is not on the list."""
    import torch

    space, _, rest = name.partition(".")
    packet, _, variant = rest.partition(".")
    if space != "aten" or packet not in NAMES:
        return None
    known = getattr(torch.ops.aten, packet, None)
    if known is None or variant not in known.overloads():
        return None
    found = getattr(known, variant)
    return found if _is_plain(found) else None


def _is_plain(found: Any) -> bool:
    arguments = found._schema.arguments
    return all(str(each.type) in _PLAIN and not each.is_out for each in arguments)
