"""Methods side by side: strategies and settings over seeds, memory and time, pictures in a grid."""
