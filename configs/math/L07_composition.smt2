; L07: totals (cost, latency, error) form commutative monoids in sequence (+, +, +) and side by side (+, max, +); a
; better part never makes a worse whole; side by side is never worse than in sequence.
; code: plans.compose
(set-logic ALL)
(declare-datatypes ((Total 0)) (((total (c Int) (l Int) (e Int)))))
(define-fun fine ((a Total)) Bool (and (>= (c a) 0) (>= (l a) 0) (>= (e a) 0) (<= (e a) 1000000000)))
(define-fun cap ((x Int)) Int (ite (<= x 1000000000) x 1000000000))
(define-fun longer ((x Int) (y Int)) Int (ite (>= x y) x y))
(define-fun seq ((a Total) (b Total)) Total (total (+ (c a) (c b)) (+ (l a) (l b)) (cap (+ (e a) (e b)))))
(define-fun side ((a Total) (b Total)) Total (total (+ (c a) (c b)) (longer (l a) (l b)) (cap (+ (e a) (e b)))))
(define-fun le ((a Total) (b Total)) Bool (and (<= (c a) (c b)) (<= (l a) (l b)) (<= (e a) (e b))))
(declare-const x Total) (declare-const y Total) (declare-const z Total) (declare-const w Total)
(assert (and (fine x) (fine y) (fine z) (fine w)))
(push 1) ; expect unsat: associative and commutative
(assert (not (and (= (seq x (seq y z)) (seq (seq x y) z)) (= (seq x y) (seq y x)) (= (side x (side y z)) (side (side x y) z)) (= (side x y) (side y x)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: monotone
(assert (le x y))
(assert (not (and (le (seq x z) (seq y z)) (le (side x z) (side y z)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: exchange, and side by side is at most in sequence
(assert (not (and (le (side (seq x z) (seq y w)) (seq (side x y) (side z w))) (le (side x y) (seq x y)))))
(check-sat)
(pop 1)
(push 1) ; expect sat: the longest of latencies in sequence would promise too little
(assert (< (longer (l x) (l y)) (l (seq x y))))
(check-sat)
(pop 1)
