//! Field-aware factorization machines.
