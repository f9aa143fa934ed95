"""A VAE whose log variance has grown: exp(logvar) overflows, and no softmax is near."""

# says: bound the exponent at -20 and 20 where it is made
# never: cross_entropy
# never: softmax
import torch
import torch.nn.functional as F

torch.manual_seed(0)
encoder, decoder = torch.nn.Linear(8, 4), torch.nn.Linear(2, 8)
x = torch.rand(6, 8)
x[4] *= 500
mu, logvar = encoder(x).chunk(2, dim=-1)
z = mu + torch.randn_like(mu)
reconstruction = F.mse_loss(torch.sigmoid(decoder(z)), x)
kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(-1).mean()  # <- fault: op=exp phase=forward rows=4
loss = reconstruction + kl
loss.backward()
