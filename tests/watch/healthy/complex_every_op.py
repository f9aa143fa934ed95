"""Complex tensors, conjugates among them, looked at in every operation."""

# settings: every_op
import torch

torch.manual_seed(0)
filters = torch.nn.Parameter(torch.randn(64))
spectrum = torch.stft(filters, 16, window=torch.hann_window(16), return_complex=True)
power = (spectrum * spectrum.conj()).real + 1e-6
phase = torch.angle(spectrum.conj().mH)
loss = power.log().mean() + phase.pow(2).mean() * 0
loss.backward()
