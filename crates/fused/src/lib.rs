//! Row-by-row training without a graph.
