"""Rigid to affine registration of volumes that each come with their own voxel size and place."""
