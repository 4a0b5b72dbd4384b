mod accounts;
mod devices;
mod discovery;
mod registration;
mod sessions;
