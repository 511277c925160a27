//! Tokens of MicroVM endpoints.
