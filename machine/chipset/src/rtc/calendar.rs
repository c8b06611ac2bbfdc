//! Seconds since 1970 to calendar and back (proleptic Gregorian).

/// A moment, as the clock's registers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub date: i64,
    /// Sunday is 1.
    pub day_of_week: i64,
    pub hours: i64,
    pub minutes: i64,
    pub seconds: i64,
}

pub(super) const DAY_S: i64 = 86_400;

/// Days from 1970-01-01 to a date; months and dates outside of their range carry over. Years
/// begin in March here, so that leap days end them.
fn days(year: i64, month: i64, date: i64) -> i64 {
    let month = month - 3;
    let year = year + month.div_euclid(12);
    let day_of_year = (153 * month.rem_euclid(12) + 2) / 5 + date - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + day_of_year - 719_468
}

impl Moment {
    pub fn from_unix(unix_s: i64) -> Self {
        let day = unix_s.div_euclid(DAY_S);
        let second = unix_s.rem_euclid(DAY_S);
        // 400 years have 146,097 days; the estimate is at most one year too late.
        let mut year = (day + 719_468).div_euclid(146_097) * 400
            + (day + 719_468).rem_euclid(146_097) * 400 / 146_097
            + 1;
        while days(year, 1, 1) > day {
            year -= 1;
        }
        let month = (1..=12).rev().find(|month| days(year, *month, 1) <= day).unwrap_or(1);
        Self {
            year,
            month,
            date: day - days(year, month, 1) + 1,
            day_of_week: (day + 4).rem_euclid(7) + 1,
            hours: second / 3600,
            minutes: second / 60 % 60,
            seconds: second % 60,
        }
    }

    pub fn to_unix(self) -> i64 {
        let Self { year, month, date, day_of_week: _, hours, minutes, seconds } = self;
        days(year, month, date) * DAY_S + hours * 3600 + minutes * 60 + seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (unix_s, year, month, date, day_of_week) in [
            (0, 1970, 1, 1, 5),
            (951_782_400, 2000, 2, 29, 3),
            (4_107_542_400, 2100, 3, 1, 2),
            (1_798_761_599, 2026, 12, 31, 5),
            (-1, 1969, 12, 31, 4),
        ] {
            let moment = Moment::from_unix(unix_s);
            let Moment { year: y, month: m, date: d, day_of_week: w, .. } = moment;
            assert_eq!((y, m, d, w), (year, month, date, day_of_week), "{unix_s}");
            assert_eq!(moment.to_unix(), unix_s);
        }
    }

    #[test]
    fn days_of_four_centuries_survive_the_round_trip() {
        for day in (0..146_097).step_by(7) {
            let unix_s = day * DAY_S + 12_345;
            assert_eq!(Moment::from_unix(unix_s).to_unix(), unix_s);
        }
    }
}
