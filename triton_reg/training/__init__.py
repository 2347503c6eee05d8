"""Fitting of feature networks through a registration method; imported by no other layer."""
