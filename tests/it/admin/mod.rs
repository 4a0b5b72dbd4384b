mod access;
mod notices;
mod projections;
mod registration_tokens;
mod reports;
mod rooms;
mod server;
mod users;
