mod accounts;
mod belongings;
mod devices;
mod flags;
mod list;
mod sessions;
