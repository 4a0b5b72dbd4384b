//! The `everfold` program.

/// What a request allocates is small and soon gone, on many threads: mimalloc is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    everfold::cli::run()
}
