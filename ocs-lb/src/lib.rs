//! The controller of ocs-lb: policy, health and the operator's view.
//!
//! Modules depend on each other in one direction only: `config` makes a
//! [`model`], `model` knows neither aya nor tokio, and only `datapath` knows
//! aya.

pub mod admin;
pub mod cli;
pub mod config;
pub mod conflict;
pub mod datapath;
pub mod health;
pub mod metrics;
pub mod model;
pub mod neighbor;
pub mod readiness;
pub mod resets;
pub mod run;
pub mod setup;
pub mod snapshot;
pub mod targets;
pub mod words;
