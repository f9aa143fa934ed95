"""The clipped policy objective of PPO, GRPO and GSPO, and its KL term: token by token, or sequence by sequence."""
