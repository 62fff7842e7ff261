//! One behaviour suite for all stores.
