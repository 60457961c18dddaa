"""Isthmus: train and count where the data is; let approved results alone cross, and leave evidence of it."""
