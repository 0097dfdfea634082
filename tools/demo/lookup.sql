-- Customers look at their accounts: the newest are the busiest.
\set age random_zipfian(1, 1000000, 1.05)
SELECT abalance FROM pgbench_accounts WHERE aid = 1000001 - :age;
