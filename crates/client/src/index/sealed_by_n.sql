-- Commits of this machine are looked for by position and by age, and are long.
CREATE INDEX sealed_by_n ON sealed (n);
CREATE INDEX sealed_by_time ON sealed (time_ms);
