"""Misbehaviour on command: what can be asked for, and how it is done."""
