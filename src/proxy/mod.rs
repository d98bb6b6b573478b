//! One request, one file a step.
