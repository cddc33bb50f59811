"""Validation sets: pictures and prompts that are drawn, checked and reviewed once and then stay fixed."""
