//! wide-deep
