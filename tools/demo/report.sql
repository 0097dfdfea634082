-- The branches report one after another, in the order of their accounts
-- department, and then the whole bank.
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 600001 AND 640000;
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 200001 AND 240000;
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 850001 AND 890000;
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 10001 AND 50000;
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 430001 AND 470000;
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN 730001 AND 770000;
SELECT bid, count(*), min(abalance), max(abalance) FROM pgbench_accounts GROUP BY bid;
