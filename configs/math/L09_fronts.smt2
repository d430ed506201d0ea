; L09: fronts that are closed under every service bound every plan (induction step over the tree of a plan), and a plan
; that weighs no more than anything in the fronts of what is wanted weighs no more than any plan within the limits.
; a, b: totals of two inputs, covered by f, g of the fronts; the service fed with f and g is covered by h.
; code: plans.plan, tools.plan_checker.check_closed
(set-logic ALL)
(declare-datatypes ((Total 0)) (((total (c Int) (l Int) (e Int)))))
(define-fun fine ((a Total)) Bool (and (>= (c a) 0) (>= (l a) 0) (>= (e a) 0)))
(define-fun cap ((x Int)) Int (ite (<= x 1000000000) x 1000000000))
(define-fun longer ((x Int) (y Int)) Int (ite (>= x y) x y))
(define-fun le ((a Total) (b Total)) Bool (and (<= (c a) (c b)) (<= (l a) (l b)) (<= (e a) (e b))))
(define-fun fed ((s Total) (a Total) (b Total)) Total
  (total (+ (c s) (c a) (c b)) (+ (l s) (longer (l a) (l b))) (cap (+ (e s) (e a) (e b)))))
(declare-const s Total) (declare-const a Total) (declare-const b Total) (declare-const f Total) (declare-const g Total)
(declare-const h Total) (declare-const limits Total)
(assert (and (fine s) (fine a) (fine b) (fine f) (fine g) (fine h)))
(push 1) ; expect unsat: what a service makes of covered inputs is covered
(assert (and (le f a) (le g b)))
(assert (=> (le (fed s f g) limits) (le h (fed s f g))))
(assert (le (fed s a b) limits))
(assert (not (le h (fed s a b))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: inputs of a plan within the limits are within the limits (so cutting them off loses nothing)
(assert (<= (e limits) 1000000000))
(assert (<= (e a) 1000000000))
(assert (le (fed s a b) limits))
(assert (not (le a limits)))
(check-sat)
(pop 1)
(push 1) ; expect unsat: weights are monotone, so the least of the fronts is the least of all
(declare-const wc Int) (declare-const wl Int) (declare-const we Int)
(assert (and (>= wc 0) (>= wl 0) (>= we 0) (le f a)))
(declare-const dc Int) (declare-const dl Int) (declare-const de Int)
(assert (and (= dc (- (c a) (c f))) (= dl (- (l a) (l f))) (= de (- (e a) (e f)))))
(assert (not (>= (+ (* wc dc) (* wl dl) (* we de)) 0)))
(check-sat)
(pop 1)
(push 1) ; expect sat: covering the inputs alone, without closure, proves nothing
(assert (and (le f a) (le g b)))
(assert (not (le h (fed s a b))))
(check-sat)
(pop 1)
