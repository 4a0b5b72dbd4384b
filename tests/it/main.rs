//! Everfold through its HTTP interface, in process: a file for each chapter, named like the handlers'.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on says so by panicking"
)]

mod admin;
mod cli;
mod client;
mod common;
mod contention;
mod convergence;
mod disk;
mod following;
mod forks;
mod fuzz;
mod handover;
mod health;
mod http;
mod invariants;
mod leases;
mod log_time;
mod moving;
mod neighbours;
mod nodes;
mod overtaken;
mod patience;
mod processes;
mod races;
mod routes;
mod snapshots;
mod staging;
mod standing;
mod start;
mod tools;
mod workload;
