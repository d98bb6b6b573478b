//! The control plane: health, metrics, and what an operator sees.
