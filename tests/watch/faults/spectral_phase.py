"""A complex division by 0: NaN in the real part, NaN in the imaginary part."""

# says: complex64
import torch

torch.manual_seed(0)
filters = torch.nn.Parameter(torch.randn(32))
spectrum = torch.fft.rfft(filters - filters.mean()) * torch.arange(17)
unit = spectrum / spectrum.abs()  # <- fault: op=div phase=forward
loss = (unit.real - 1).pow(2).mean()
loss.backward()
