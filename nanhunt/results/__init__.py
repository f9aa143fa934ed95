"""What was found: frozen, additive, saved as JSON; no text is made here."""
