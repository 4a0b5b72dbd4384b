//! What a log of a test's own leaves to the one that it is over.

/// The methods of `LogReader` that go to the log in a field: `read`, too, if that is asked for.
macro_rules! forward_reads {
    ($field:tt, with read) => {
        crate::common::forward_reads!($field);

        fn read(
            &self,
            from: schemas::Lsn,
            records: usize,
            bytes: usize,
        ) -> Result<Vec<projections::Entry>, everfold::log::ReadError> {
            self.$field.read(from, records, bytes)
        }
    };
    ($field:tt) => {
        fn follow(self: std::sync::Arc<Self>, from: schemas::Lsn) -> everfold::log::EntryStream {
            std::sync::Arc::clone(&self.$field).follow(from)
        }

        fn tail(&self) -> schemas::Lsn {
            self.$field.tail()
        }

        fn watch_tail(&self) -> tokio::sync::watch::Receiver<schemas::Lsn> {
            self.$field.watch_tail()
        }

        fn at_time(&self, ms: u64) -> Result<schemas::Lsn, everfold::log::ReadError> {
            self.$field.at_time(ms)
        }

        fn note(&self, lsn: schemas::Lsn) -> Result<Option<everfold::log::Note>, everfold::log::ReadError> {
            self.$field.note(lsn)
        }
    };
}

pub(crate) use forward_reads;
