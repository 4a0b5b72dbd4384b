mod projections;
mod users;
