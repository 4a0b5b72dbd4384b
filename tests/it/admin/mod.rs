mod access;
mod projections;
mod registration_tokens;
mod reports;
mod users;
