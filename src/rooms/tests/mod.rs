mod auth;
mod build;
mod check;
mod create;
mod forks;
mod intact;
mod power;
