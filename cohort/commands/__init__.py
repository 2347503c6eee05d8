"""The commands of ``cohort``: what each takes, calls and prints."""
