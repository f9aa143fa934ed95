"""The commands, a file each: what is typed after its name. What it does lies outside, and is loaded when it runs."""
