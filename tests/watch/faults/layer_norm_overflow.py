"""Activations so large that their variance overflows inside layer_norm."""

# cause: data
# says: the variance is inf
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
loss = model(torch.randn(3, 4) * 1e25).pow(2).mean()  # <- fault: op=layer_norm phase=forward module=1
loss.backward()
