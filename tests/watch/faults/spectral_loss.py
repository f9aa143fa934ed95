"""The derivative of a complex magnitude's log at a silent frame; the gradients on the way are complex."""

import torch

torch.manual_seed(0)
filters = torch.nn.Parameter(torch.randn(64))
audio = torch.zeros(64)
spectrum = torch.stft(audio * filters, 16, window=torch.hann_window(16), return_complex=True)
power = spectrum.abs().pow(2).sum(0)
loss = power.sqrt().mean()  # <- fault: op=sqrt phase=backward
loss.backward()
