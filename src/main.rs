//! The `everfold` program.

fn main() -> std::process::ExitCode {
    everfold::cli::run()
}
