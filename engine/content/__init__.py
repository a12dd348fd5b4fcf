"""What prompts are made of, and what a migration makes of them: selection, rewriting, translation, digests.

All of it is pure, but for `textfile`, which reads what people hand us. May import the model and lossless JSON alone.
"""
