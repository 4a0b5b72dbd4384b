//! Which Lsn each offset stands for: `base + offset`. The base stands with every message, is 1 on a fresh topic, and
//! may rise along it, where a copy keeps gaps or a new epoch begins.

use schemas::Lsn;

/// The offset and the base of a message.
pub(super) type Place = (u64, u64);

/// From which offset on which base holds. What has no base, or a lower one than a message before it, is not of the log,
/// for every reader alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments(Vec<Place>);

impl Segments {
    /// Finds them in what is there already, by bisection. `look` gives the first message of the log at or after an
    /// offset. Also gives the offset of the last one.
    pub fn find<E>(end: u64, look: &mut impl FnMut(u64) -> Result<Option<Place>, E>) -> Result<(Self, Option<u64>), E> {
        let Some(first) = (if end == 0 { None } else { look(0)? }) else { return Ok((Self::default(), None)) };
        let (mut last, mut beyond) = (first, end);
        // Nearly always it is the very last message.
        let mut middle = end - 1;
        while last.0 < beyond {
            match look(middle)? {
                Some(place) => last = place,
                None => beyond = middle,
            }
            if last.0 + 1 >= beyond {
                break;
            }
            middle = last.0 + (beyond - last.0).div_ceil(2);
        }
        let mut segments = Self(vec![first]);
        segments.search(first, last, look)?;
        Ok((segments, Some(last.0)))
    }

    /// Finds the changes after one message, up to another.
    fn search<E>(
        &mut self,
        low: Place,
        high: Place,
        look: &mut impl FnMut(u64) -> Result<Option<Place>, E>,
    ) -> Result<(), E> {
        if low.1 >= high.1 {
            return Ok(());
        }
        if low.0 + 1 >= high.0 {
            self.0.push(high);
            return Ok(());
        }
        let middle = low.0 + (high.0 - low.0) / 2;
        let found = look(middle)?.unwrap_or(high);
        if found.0 >= high.0 {
            // Between the middle and the end there is nothing of the log.
            return self.search_before(low, middle, high, look);
        }
        self.search(low, found, look)?;
        self.search(found, high, look)
    }

    /// The same where nothing of the log stands from `until` on before `high`.
    fn search_before<E>(
        &mut self,
        low: Place,
        until: u64,
        high: Place,
        look: &mut impl FnMut(u64) -> Result<Option<Place>, E>,
    ) -> Result<(), E> {
        let (mut low, mut until) = (low, until);
        while low.0 + 1 < until {
            let middle = low.0 + (until - low.0) / 2;
            match look(middle)?.filter(|found| found.0 < high.0) {
                Some(found) => {
                    self.search(low, found, look)?;
                    low = found;
                }
                None => until = middle,
            }
        }
        if low.1 < high.1 {
            self.0.push(high);
        }
        Ok(())
    }

    /// The base that what is appended now gets.
    pub fn base(&self) -> u64 {
        self.0.last().map_or(1, |(_, base)| *base)
    }

    /// The position of the next message: none if it is not of the log.
    pub fn take(&mut self, offset: u64, base: Option<u64>) -> Option<Lsn> {
        let base = base.filter(|base| *base >= 1 && *base + offset <= Lsn::MAX.0)?;
        if self.0.is_empty() || base > self.base() {
            self.0.push((offset, base));
        }
        self.lsn(offset, Some(base))
    }

    /// The position of a message among those that were seen: none if it is not of the log.
    pub fn lsn(&self, offset: u64, base: Option<u64>) -> Option<Lsn> {
        let after = self.0.partition_point(|(first, _)| *first <= offset);
        let (_, expected) = self.0[..after].last()?;
        base.filter(|base| base == expected).map(|base| Lsn(base + offset))
    }

    /// The offset of the first message that may have this position or one after it.
    pub fn offset(&self, lsn: Lsn) -> u64 {
        let after = self.0.partition_point(|(first, base)| first + base <= lsn.0);
        let next = self.0.get(after).map_or(u64::MAX, |(first, _)| *first);
        match self.0[..after].last() {
            Some((_, base)) => (lsn.0 - base).min(next),
            None => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a topic whose messages have these bases, none for those of others, and counts how often.
    fn look<'a>(topic: &'a [Option<u64>], looks: &'a mut usize) -> impl FnMut(u64) -> Result<Option<Place>, ()> + 'a {
        move |offset| {
            *looks += 1;
            let place = |(offset, base): (u64, &Option<u64>)| base.map(|base| (offset, base));
            Ok((0..).zip(topic).skip(usize::try_from(offset).unwrap()).find_map(place))
        }
    }

    proptest! {
        #[test]
        fn bisection_finds_what_reading_all_finds(
            steps in prop::collection::vec((0..4_u64, 0..6_usize, 0..3_usize), 0..12)
        ) {
            let mut topic = Vec::new();
            let mut base = 1;
            for (rise, own, foreign) in steps {
                base += rise;
                topic.extend(std::iter::repeat_n(Some(base), own));
                topic.extend(std::iter::repeat_n(None, foreign));
            }
            let mut read = Segments::default();
            let places: Vec<_> = (0..).zip(&topic).map(|(offset, base)| (offset, read.take(offset, *base))).collect();
            let mut looks = 0;
            let (found, last) = Segments::find(topic.len() as u64, &mut look(&topic, &mut looks)).unwrap();
            prop_assert_eq!(&found, &read);
            let records: Vec<_> = places.iter().filter_map(|(offset, lsn)| Some((*offset, (*lsn)?))).collect();
            prop_assert_eq!(last, records.last().map(|(offset, _)| *offset));
            prop_assert!(records.is_sorted_by(|a, b| a.1 < b.1));
            for (offset, lsn) in &records {
                prop_assert_eq!(found.lsn(*offset, topic[*offset as usize]), Some(*lsn));
                prop_assert_eq!(found.offset(*lsn), *offset);
            }
            // From the offset of any position on comes the first record at or after it, and none before it.
            for lsn in (0..=records.last().map_or(0, |(_, lsn)| lsn.0 + 2)).map(Lsn) {
                let expected = records.iter().find(|(_, at)| *at >= lsn).map(|(offset, _)| *offset);
                let offset = found.offset(lsn);
                let next = records.iter().find(|(at, _)| *at >= offset).map(|(offset, _)| *offset);
                prop_assert_eq!(next, expected);
            }
        }
    }

    #[test]
    fn a_long_topic_takes_few_looks() {
        let topic: Vec<_> = (0..100_000).map(|n| Some(if n < 70_000 { 1 } else { 1 << 40 })).collect();
        let mut looks = 0;
        let (found, last) = Segments::find(100_000, &mut look(&topic, &mut looks)).unwrap();
        assert_eq!(found.0, [(0, 1), (70_000, 1 << 40)]);
        assert_eq!(last, Some(99_999));
        assert!(looks < 30, "{looks}");
    }

    #[test]
    fn what_falls_behind_is_not_of_the_log() {
        let mut segments = Segments::default();
        assert_eq!(segments.base(), 1);
        assert_eq!(segments.take(0, Some(1)), Some(Lsn(1)));
        assert_eq!(segments.take(1, None), None);
        assert_eq!(segments.take(2, Some(10)), Some(Lsn(12)));
        assert_eq!(segments.take(3, Some(1)), None);
        assert_eq!(segments.take(4, Some(u64::MAX / 2)), None);
        assert_eq!(segments.take(5, Some(10)), Some(Lsn(15)));
    }
}
