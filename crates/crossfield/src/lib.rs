//! crossfield
