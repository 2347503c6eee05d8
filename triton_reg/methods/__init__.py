"""Registration methods: features of a fixed and a moving subject in, a displacement out."""
